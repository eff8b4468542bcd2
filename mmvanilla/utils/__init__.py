"""What every room needs: the command line, what is installed, where things are."""
