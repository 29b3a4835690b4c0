"""The behaviour: prompt suites, generation, judges, metrics, and a confined child that runs forks."""
