"""The flow of a study through the node: receive, promote, deliver, recover."""
