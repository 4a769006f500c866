"""The limits of the parts: what each does when nothing but the bare work is asked of it."""
