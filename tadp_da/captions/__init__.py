"""Captions: what is said about an image, and how it becomes a prompt.

``captioner.py`` makes captions, ``files.py`` reads and writes them, ``clean.py`` prepares them, ``strategies/`` holds
the plug-ins that turn a caption into a prompt, and ``rewrite.py`` applies one of them to source and target.
"""
