"""The made-up data set of coloured shapes."""
