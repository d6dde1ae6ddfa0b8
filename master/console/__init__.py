"""The console: a web page that the master serves, for people who want to see what happens and do something about it.

``static/`` is the page (plain ES modules, no build step); the rest is what it asks. Everything it shows comes from the
services and the store that the client API uses, so any master of a store shows the same.
"""
