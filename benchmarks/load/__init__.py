"""The load: a process of its own that presses buttons over HTTP and says how much of a core it took."""
