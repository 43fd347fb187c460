"""Captions of images, and how they become prompts.

``captioner.py`` generates captions, ``files.py`` reads and writes them, ``clean.py`` prepares them, ``strategies/`` has
the plug-ins that turn a caption into a prompt, and ``rewrite.py`` applies one of them to source and target.
"""
