"""tadp_da: labels in one visual domain, only images in another.

A **Concept** learned from the unlabelled images of a target **Domain** colours the captions; a diffusion
**Backbone** turns image and caption into features; a **Head** reads them; a **Recipe** says which of each.

Importing this package imports no deep-learning library: everything heavy loads where it is first used.
"""

__version__ = "0.1.0"
