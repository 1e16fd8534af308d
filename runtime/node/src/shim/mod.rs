//! The shim: parent of one container, owner of all of it that must not break.
