"""The dedicated consumer: a process of its own that runs no Celery task."""
