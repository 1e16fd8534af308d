//! Requests, answers and client of the Berth API
