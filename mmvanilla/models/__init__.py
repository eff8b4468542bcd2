"""VanillaNet itself: its variants, layers, head, fusing, and the loading of its weights."""
