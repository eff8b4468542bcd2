"""A data set that is drawn here: coloured shapes."""
