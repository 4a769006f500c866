"""Bodies that exchange a token for a ticket."""

from datetime import UTC, datetime
from enum import StrEnum

from msgspec import Struct

from service.api.schemas.base import SafeId, Time
from service.domain.ticket import Purpose, Ticket


class PurposeName(StrEnum):
    """What a ticket is for: to request coupons, or to follow requests only."""

    ACCEPT = "accept"
    STREAM = "stream"


class NewTicket(Struct, frozen=True, forbid_unknown_fields=True):
    """What the ticket shall be for."""

    purpose: PurposeName = PurposeName.ACCEPT

    @property
    def value(self) -> Purpose:
        """The purpose as the domain names it."""
        return Purpose[self.purpose.name]


class TicketView(Struct, frozen=True):
    """A ticket: send it as `Authorization: Bearer TICKET`."""

    ticket: str
    purpose: PurposeName
    user_id: SafeId
    expires_at: Time


def ticket_view(text: str, ticket: Ticket) -> TicketView:
    """Render a ticket."""
    expires_at = datetime.fromtimestamp(ticket.expires_at, UTC)
    return TicketView(text, PurposeName[ticket.purpose.name], ticket.user_id, expires_at)
