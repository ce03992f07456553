"""From pictures to verdicts. No torch here."""
