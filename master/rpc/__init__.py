"""The services: they translate between messages and the store, and hold no decisions."""
