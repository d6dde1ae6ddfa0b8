"""The GPUs of this machine: which there are, which slot gets which, and which can't be trusted any more."""
