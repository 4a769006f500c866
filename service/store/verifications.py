"""Records of verifications: when the promises were proved, and whether they held."""

from sqlalchemy import Connection, text


def record(tx: Connection, coupon_id: int | None, *, ok: bool) -> None:
    """Record a proof of one coupon, or of all (None), that ended now."""
    tx.execute(text("INSERT INTO verifications (coupon_id, ok) VALUES (:coupon, :ok)"), {"coupon": coupon_id, "ok": ok})
