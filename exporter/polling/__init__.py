"""What is asked when: the poller, its sources, and the readers that they use."""
