"""The labels of figures on the page: what was measured, then the measure with its unit."""

from collections.abc import Mapping

from benchmarks.experiments.request_cost import CASES
from benchmarks.results import Result

_COLD_ON_HOT_PARTITION = "cold coupons on the hot coupon's partition"
_COLD_ON_OTHERS = "cold coupons on other partitions"
#: what the prefix of a figure's name stands for, by experiment
_SUBJECTS: Mapping[str, Mapping[str, str]] = {
    "issuers": {"one_": "1 issuer", "two_": "2 issuers"},
    "processes": {
        "one_issuing_": "1 API process, while issuing",
        "two_issuing_": "2 API processes, while issuing",
        "one_": "1 API process, issuer suspended",
        "two_": "2 API processes, issuer suspended",
    },
    "request_cost": {f"{case}_": description for case, description in CASES.items()},
    "authentication": {
        "accepted_none_": "accepted, no authentication",
        "accepted_ticket_": "accepted, a ticket of each user",
        "accepted_limited_ticket_": "accepted, a ticket of each user, with rate limits",
        "accepted_token_": "accepted, a token (RS256) of each user",
        "repeated_none_": "duplicate, no authentication",
        "repeated_ticket_": "duplicate, a ticket",
        "repeated_token_": "duplicate, a token (RS256)",
    },
    "memory": {
        "silent_": "connection that sends nothing",
        "half_head_": "connection with half a head",
        "half_body_": "connection with half a body",
        "endless_head_": "connection with 256 kB of headers and no end",
    },
    "hostile": {
        "without_": "without hostile connections",
        "beside_": "beside hostile connections",
        "slow_": "slow connections",
        "silent_": "silent connections",
        "half_closed_": "half-closed connections",
    },
    "waiting": {
        "without_": "without users who follow",
        "beside_": "beside listeners and pollers",
        "event_": "event to a listener",
        "listener_": "listener",
    },
    "accept": {
        "bare_": "bare ASGI function",
        "constant_": "constant from FastAPI",
        "accepted_": "accepted, issuer suspended",
        "while_issuing_": "accepted while issuing",
        "half_": "at half of the rate while issuing",
    },
    "coupons": {
        "sharing_alone_": f"{_COLD_ON_HOT_PARTITION}, without the hot coupon",
        "sharing_beside_": f"{_COLD_ON_HOT_PARTITION}, beside it",
        "sharing_": f"{_COLD_ON_HOT_PARTITION}, beside it",
        "others_alone_": f"{_COLD_ON_OTHERS}, without the hot coupon",
        "others_beside_": f"{_COLD_ON_OTHERS}, beside the hot coupon",
        "hot_": "hot coupon",
    },
    "notices": {
        "without_": "without notices",
        "outbox_": "with outbox rows, no worker",
        "delivering_": "while a worker delivers",
        "paced_": "at the constant rate",
    },
    "observation": {
        "observed_accepted_": "with metrics, scrapes and alerts, accepted while issuing",
        "observed_drained_": "with metrics, scrapes and alerts, drained",
        "observed_rest_": "with metrics, scrapes and alerts, at rest",
        "unobserved_accepted_": "without metrics, scrapes and alerts, accepted while issuing",
        "unobserved_drained_": "without metrics, scrapes and alerts, drained",
        "unobserved_rest_": "without metrics, scrapes and alerts, at rest",
        "dashboards_rest_": "with five dashboards open, at rest",
        "dashboards_more_": "five dashboards, beside none",
    },
    "drain": {
        "limit_copy_at_once_": "COPY of all rows in one transaction",
        "limit_copy_": "COPY in the issuer's transactions",
        "limit_arrays_": "INSERT of arrays in the issuer's transactions",
        "limit_insert_": "insert limit, the faster of both",
    },
    "backlog": {
        "one_coupon_": "backlog of one coupon",
        "sold_out_": "50 coupons that sell out in their backlog",
        "odd_": "one unreadable record in 1,000",
    },
    "parts": {
        "limit_produce_": "librdkafka, produce",
        "limit_consume_": "librdkafka, consume",
        "limit_gate_batched_": "the gate's script, 100 requests in a call",
        "limit_gate_": "the gate's script, one request in a call",
    },
    "growth": {"coupons_": "table coupons", "offsets_": "table offsets"},
    "": {
        "ours_": "this project",
        "as_is_": "scheduler",
        "to_be_small_": "TO-BE, burst of {small:,.0f}",
        "to_be_large_": "TO-BE, burst of {large:,.0f}",
        "to_be_": "TO-BE consumer",
    },
}
#: words of a measure, in the order in which they are replaced
_MEASURES = {
    "accepted_per_second": "accepted requests/s",
    "from_burst": "wait from the first request",
    "since_request": "time from the API's receipt to the commit",
    "generator_cpu_share": "load generator's share of one CPU",
    "generator_share": "load generator's share of one CPU",
    "generator_us": "load generator's CPU time per request (µs)",
    "_cpu_us": ": CPU time per request (µs)",
    "_cores": ": cores",
    "cpu_us": "API's CPU time per request (µs)",
    "connection_kb": "memory of the API kb",
    "load_mb": "load: memory of the API mb",
    "notices_left_per_second": "these decisions, delivered per second",
    "notices_left": "decisions not delivered at the end of the drain",
    "waiting_at": "decisions not delivered at",
    "updates_hot": "updates that change no index (HOT)",
}
#: experiments whose rates are of HTTP requests
_OF_REQUESTS = ("accept", "authentication", "processes", "request_cost")


def label(result: Result, name: str) -> str:
    """Return the label of a figure, for example `2 issuers: records/s` for `two_per_second`."""
    count = ""
    if name.startswith(("by_", "rows_")):
        counted, number, name = name.split("_", 2)
        count = f"{number} connections, " if counted == "by" else f"with {int(number):,} rows: "
    subjects = {**_SUBJECTS.get(result.experiment, {}), **_SUBJECTS[""]}
    prefix = next((prefix for prefix in subjects if name.startswith(prefix)), "")
    subject = f"{subjects[prefix].format(**result.size)}: " if prefix else ""
    measure = name.removeprefix(prefix)
    for words, text in _MEASURES.items():
        measure = measure.replace(words, text)
    of_requests = result.experiment in _OF_REQUESTS or prefix.startswith("limit_gate_") or prefix.endswith("accepted_")
    measure = measure.replace("per_second", "requests/s" if of_requests else "records/s")
    return count + subject + measure.replace("_", " ").replace(" mb", " MB").replace(" kb", " kB")
