"""What a call costs: multiply-adds and time. Import from the modules; nothing here knows vtw_search."""
