-- What of the network berths reach: a JSON string (all, internet, none) or {"list": […]} of IPv4 networks. A berth's own NULL is the profile's.
ALTER TABLE profiles ADD COLUMN egress TEXT NOT NULL DEFAULT '"internet"';
ALTER TABLE berths ADD COLUMN egress TEXT;
