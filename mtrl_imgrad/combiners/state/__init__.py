"""The parts of a combiner's state: tables by task, counters, randomness."""
