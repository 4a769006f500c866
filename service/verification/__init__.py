"""The proof: reads the log and the database again and checks promises P1 to P5. May contain SQL."""
