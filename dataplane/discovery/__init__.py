"""Where a data plane is: the record, how the training side publishes it, and the named actor that is asked for it."""
