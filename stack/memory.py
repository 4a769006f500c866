"""Whether there is memory for what was asked for."""

import psutil

THREE_BROKERS_MB = 1500
MB = 1024 * 1024


def lack(brokers: int) -> str:
    """What is missing for so many Kafka brokers, empty if nothing is: for tests that ask before they start a stack."""
    free_mb = psutil.virtual_memory().available // MB
    if brokers == 1 or free_mb >= THREE_BROKERS_MB:
        return ""
    return f"{brokers} Kafka brokers need {THREE_BROKERS_MB} MB of memory and {free_mb} MB are free: end what takes it"
