//! Who reads which Secret, by the running agent.
