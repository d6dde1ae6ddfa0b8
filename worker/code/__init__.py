"""Code of their users' own that searches ship: fetched, verified, unpacked, and put on an executor's path."""
