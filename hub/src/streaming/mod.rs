//! WebSocket and SPDY streaming for exec, attach, port-forward and logs: being written.
