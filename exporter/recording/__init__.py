"""The flight recorder: the run on disk, and what is made of it. Nothing here asks TransferQueue for anything.

SQLite is loaded by those who use a file.
"""
