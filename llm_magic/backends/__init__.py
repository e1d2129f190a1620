"""Where the tokens come from: one protocol, a prompt in, a stream of tokens out."""
