//! Decoders, one file a format, and the sniffing by content.
