"""One rank's whole step of any world, without devices or memory. Read rehearsal.py first, then watch.py."""
