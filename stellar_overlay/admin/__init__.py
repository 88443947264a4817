"""What operators see of a node: stellar-core's HTTP commands, and what is ours."""
