//! Nothing: this package only names what cargo is to fetch.
