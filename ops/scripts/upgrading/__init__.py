"""What upgrade is made of.

``versions`` keeps versions side by side and says which one is used, ``preflight`` looks whether an upgrade may begin,
``moving`` makes targets start from another version and back, ``command`` is the command.
"""
