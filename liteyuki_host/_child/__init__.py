"""What runs in a child before and around the user's NoneBot project. Private to ``liteyuki_host.launch``."""
