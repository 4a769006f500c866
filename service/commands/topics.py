"""`coupons topics`: the topics of Kafka, as they are and as they should be."""

import typer

from service import config, resources, startup
from service.commands.console import JsonOption, print_json, print_rows

app = typer.Typer(help="Kafka's topics: what they are, and their creation.", no_args_is_help=True)


@app.command("list")
def list_topics(*, as_json: JsonOption = False) -> None:
    """List the topics with their partitions, replicas, and what differs from the settings."""
    with startup.exit_on_error():
        states = resources.topic_states(startup.configure_process(config.load_without_keys))
    if as_json:
        print_json(states)
        return
    rows = [
        (state.topic, *("-" if number is None else number for number in (state.partitions, state.replicas)), difference)
        for state in states
        for difference in state.differences or ("nothing",)
    ]
    print_rows(("Topic", "Partitions", "Replicas", "What differs"), rows, wrap_last=True)


@app.command()
def create(*, as_json: JsonOption = False) -> None:
    """Create the topics that do not exist, then list all of them. It changes no existing topic."""
    with startup.exit_on_error():
        resources.create_topics(startup.configure_process(config.load_without_keys))
    list_topics(as_json=as_json)
