"""From a trained torch network to a supernet: trace, ties between dimensions, segments, order of channels."""
