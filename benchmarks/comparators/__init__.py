"""What the issuer and the API are compared with: the AS-IS and TO-BE systems on the same tables, a constant server."""
