"""The study bundle: written, opened, checked; and files of other programs (exchange/)."""
