"""The model test: the same random operations on a mount and on a local directory must do the same.

README.md says which file does what.
"""
