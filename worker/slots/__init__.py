"""Slots: where runs are carried out, each in an executor process of its own that is kept from run to run."""
