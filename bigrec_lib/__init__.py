"""BIGRec, step by step: the tested library behind the notebooks.

The modules follow the way the data goes; each imports only from those before it. The README has
the map.
"""
