"""The agents of a master, one file each: what it does by itself, on a clock or on an event."""
