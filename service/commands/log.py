"""`coupons log`: what to do when records of the topic are gone."""

from typing import Annotated

import typer

from service import resources
from service.commands.console import JsonOption, open_for_command, print_json, print_line, print_rows

app = typer.Typer(
    help="The log: the Kafka topic with the accepted requests, and how far it is decided.", no_args_is_help=True
)
ByOption = Annotated[str | None, typer.Option("--by", help="Who does it, for the record. Default: the user's name.")]


@app.command()
def show(*, as_json: JsonOption = False) -> None:
    """Show the topic's id, the logs of the database, the offsets of each partition, and records that are lost."""
    with open_for_command("log") as common:
        status = resources.log_recovery(common).status()
    if as_json:
        print_json(status)
        return
    rows = [("topic", status.topic_id or "does not exist")]
    for one in status.logs:
        closed = f", closed {one.closed_at:%Y-%m-%d %H:%M:%S}Z" if one.closed_at else ", open"
        opened = f"opened {one.adopted_at:%Y-%m-%d %H:%M:%S}Z by {one.adopted_by}{closed}"
        rows.append((f"log {one.log.id}", f"{one.log.topic_id}: {opened}"))
    for partition, (next_offset, first, end) in status.partitions.items():
        state = f"next offset {next_offset}, log {first} to {end}"
        if next_offset < first:
            state += f": {first - next_offset} undecided records were deleted, run `coupons log skip`"
        rows.append((f"partition {partition}", state))
    for lost in status.lost:
        end_offset = "the end" if lost.end_offset is None else lost.end_offset - 1
        text = f"offsets {lost.first_offset} to {end_offset}, recorded by {lost.recorded_by}: {lost.reason}"
        rows.append((f"lost, log {lost.log_id}, partition {lost.partition}", text))
    print_rows(("What", "State"), rows, wrap_last=True)


@app.command()
def adopt(by: ByOption = None, *, as_json: JsonOption = False) -> None:
    """Use the present topic as the log, after it was deleted and created again.

    The earlier log is closed. Its undecided requests are recorded as lost: their users may request again.
    """
    with open_for_command("log") as common:
        recovered = resources.log_recovery(common).adopt(by or resources.user_of_process())
    if as_json:
        print_json({"adopted": recovered is not None, "requests": recovered.requests if recovered else 0})
    elif recovered is None:
        print_line("the topic is the open log already; the gate was emptied")
    else:
        print_line(f"adopted; {recovered.requests} undecided requests that the gate named are dead, code lost")


@app.command()
def skip(
    partition: Annotated[
        int | None, typer.Option(min=0, help="Only this partition. Default: every partition that lacks records.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why the records are gone, for the record.")] = "not stated",
    by: ByOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Go on after records that were deleted before they were decided, and record them as lost."""
    with open_for_command("log") as common:
        recovery = resources.log_recovery(common)
        partitions = recovery.lagging_partitions() if partition is None else [partition]
        for one in partitions:
            recovered = recovery.skip(one, by or resources.user_of_process(), reason)
            if as_json:
                print_json({"partition": one, "lost": recovered.lost, "requests": recovered.requests})
                continue
            for lost in recovered.lost:
                offsets = f"offsets {lost.first_offset} to {(lost.end_offset or 0) - 1}"
                print_line(f"partition {one}: {offsets} recorded as lost; {recovered.requests} requests are dead")
        if not partitions and not as_json:
            print_line("no partition lacks undecided records")
