"""Where a data plane is: the record of it, and how the training side publishes one."""
