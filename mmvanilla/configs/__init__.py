"""Pure-Python configs; inherit one by ``with read_base(): from mmvanilla.configs.… import *``."""
