#include "lido/error.h"

const char *lido_err_name(int code)
{
        switch (code) {
        case LIDO_OK:
                return "LIDO_OK";
#define XX(number, name, sentence)                                                                             \
        case LIDO_##name:                                                                                      \
                return "LIDO_" #name;
                LIDO_ERROR_MAP(XX)
#undef XX
        default:
                return "LIDO_E?";
        }
}

const char *lido_strerror(int code)
{
        switch (code) {
        case LIDO_OK:
                return "it went well";
#define XX(number, name, sentence)                                                                             \
        case LIDO_##name:                                                                                      \
                return sentence;
                LIDO_ERROR_MAP(XX)
#undef XX
        default:
                return "no code of lido";
        }
}
