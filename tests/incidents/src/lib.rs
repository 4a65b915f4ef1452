//! The harness shared by the incident tests: real cgroups, real children, real kernel OOM kills.
