"""How threads and tasks wait, and how they are woken."""
