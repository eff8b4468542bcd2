"""Data sets that are drawn here: coloured shapes, and garments of Fashion-MNIST in scenes."""
